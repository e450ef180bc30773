"""What can be learnt from what: each stage brings its batches and its loss to the one loop."""
