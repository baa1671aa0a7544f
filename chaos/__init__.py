"""The campaign: what is lost and what runs twice while everything around the tasks fails."""
