"""What is measured of a model: answers, rates, damage, overlap, and the verdict."""
