"""Fit, predict, measure, calibrate: run folders and experiments (level 6). What is divided how: protocols."""
