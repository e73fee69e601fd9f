"""A monitor of finance news: what is said of whom, in which tone, and when that leaves its usual range. No investment advice."""
