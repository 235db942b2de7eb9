"""What kizu draws itself: products with planted defects, and training images without end (level 1)."""
