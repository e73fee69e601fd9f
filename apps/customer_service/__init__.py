"""A shop's customer service: many customers at once, answers grounded in a knowledge base, people for what is not in it."""
