"""What a shopping cart costs, in cents."""


def total(prices, discount=0):
    """The sum of all prices, less a discount in percent."""
    whole = sum(prices)
    return whole - whole * discount // 10
