"""Products with planted defects and exact masks: height maps under one lamp, seen by one camera.

`planting.planted_image` draws one image; `catalogue` lists the products and their defects."""
