"""The feed: which cleanings were posted and changed, newest first."""
