from shop.cart import total


def test_the_total_is_the_sum():
    assert total([1000, 250]) == 1250


def test_ten_percent_off():
    assert total([1000, 500], discount=10) == 1350
