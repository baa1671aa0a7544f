"""What the Beanstalk store is made of: connections, forms of jobs and dead letters, settling."""
