"""Reader studies: blinded images that people rate in a local web page, and what their ratings say."""
