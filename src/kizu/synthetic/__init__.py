"""What kizu draws itself (level 1): one drawing engine and its two users.

The engine: `noise` (random fields), `shapes` (signed distances, outlines), `pen` (lines and writing),
`canvas` (one image being drawn), `lighting` and `camera`. Its users: `products` (products with planted
defects and exact masks, the data set "planted") and `scenes` (endless images in classes, to train
representations on)."""
