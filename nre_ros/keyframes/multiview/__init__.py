"""What several posed views tell about one: which of them see the same, and how far away it is."""
