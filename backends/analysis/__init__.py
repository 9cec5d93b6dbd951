"""What is proven of loops: which rounds are independent, what they add up, where their accesses lie."""
