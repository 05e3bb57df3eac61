"""Call a function for many inputs on other people's machines.

tallymesh up                                    # a network on this machine, in another terminal
tallymesh run examples/map_area.py
tallymesh run examples/map_area.py --backend local    # the same result, without a network
"""

import tallymesh


def area(x, scale=1.0):
    return {"area": scale * x * x}


if __name__ == "__main__":
    job = tallymesh.map(area, range(200), scale=2.0, budget="2.0")  # returns at once
    for unit in job.stream():  # as they finish
        print(unit.index, unit.output["area"], unit.peer)
    print(job.results()[:3], job.cost, job.audits)  # in input order
