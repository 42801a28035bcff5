"""The report as a static site: leaderboards, statistics, a browser of items, manifests and downloads, without a server."""
