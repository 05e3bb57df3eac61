"""An asyncio service that maps a function made inside another one, and awaits the job beside its other work."""

import asyncio

import tallymesh


def pricing(rates, currency):
    def price(order, discount=0.0):
        total = sum(rates[item] * count for item, count in order.items())
        return {"total": round(total * (1 - discount), 2), "currency": currency}

    return price


async def main():
    price = pricing({"apple": 0.3, "pear": 0.45}, "EUR")
    orders = [{"apple": 3}, {"pear": 2, "apple": 1}, {}]
    job = tallymesh.map(price, orders, discount=0.1, budget="0.5")
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0.01)

    beating = asyncio.create_task(heart())
    await job
    beating.cancel()
    print([done["total"] for done in job.results()], job.results()[0]["currency"], "the loop went on:", beats > 3)


asyncio.run(main())
