"""Objects in shards: many in one tar file or one Parquet file, as data sets are kept that are too many for files."""
