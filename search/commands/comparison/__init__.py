"""What candidates answered: two compared by question, finalists asked with another cap."""
