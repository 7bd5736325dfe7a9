"""mediasvc: durable uploads, thumbnails in the background, downloads at the speed of the disk.

The folders are the path of the bytes: ingest → store → catalogue → derive → deliver.
"""
