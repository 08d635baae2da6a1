"""The S3 server of these tests."""

from tests.fixtures_s3 import s3_endpoint, s3_url

__all__ = ["s3_endpoint", "s3_url"]
