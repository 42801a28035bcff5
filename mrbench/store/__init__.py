"""Rows (Parquet parts), manifests and restored images of run folders."""
