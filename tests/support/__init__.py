"""What several tests need: servers of our own, tasks in and out of a store, threads and processes."""
