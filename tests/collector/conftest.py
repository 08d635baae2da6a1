"""An S3 server for the tests here."""

from tests.fixtures_s3 import s3_endpoint, s3_url

__all__ = ["s3_endpoint", "s3_url"]
