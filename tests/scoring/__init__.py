"""Tests of raysae.scoring."""
