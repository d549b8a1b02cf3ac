"""Is the answer good? Datasets, graders and runs against any model, prompt version or flag. Never mixed with tests."""
