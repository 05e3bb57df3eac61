def ratio(a, b):
    # a helper, two files away from the call
    return a / b
