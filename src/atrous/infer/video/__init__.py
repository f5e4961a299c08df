"""Videos, cameras and streams to labels."""
