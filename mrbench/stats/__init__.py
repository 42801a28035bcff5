"""Statistics of rows: tests, effect sizes, intervals, ranks. Reads numbers, knows neither torch nor run folders."""
