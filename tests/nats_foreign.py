"""The part of another client: enqueues jobs and reads dead letters, over nats-py.

nats_foreign.py URL enqueue NUMBER    enqueues jobs, and one of them twice
nats_foreign.py URL dead NUMBER       prints so many dead letters, a line each
"""

import asyncio
import sys

import nats


async def enqueue(stream, number):
    for job in range(number):
        headers = {"Nats-Msg-Id": f"foreign-{job}", "Trace": f"trace-{job}"}
        ack = await stream.publish("jobs.foreign", str(job).encode(), headers=headers)
        assert ack.stream == "JOBS" and not ack.duplicate, ack
    again = await stream.publish("jobs.foreign", b"0", headers={"Nats-Msg-Id": "foreign-0"})
    assert again.duplicate, again


async def dead(stream, number):
    subscription = await stream.pull_subscribe("dead.JOBS", durable="reader", stream="JOBS_DEAD")
    for message in await subscription.fetch(number, timeout=20):
        words = ["Subject", "Stream", "Sequence", "Reason", "Attempts", "Error", "Id"]
        fields = [message.headers[f"Workcrew-{word}"] for word in words]
        print("|".join([message.data.decode(), message.headers["Trace"], *fields]))
        await message.ack()


async def main():
    url, command, number = sys.argv[1:]
    client = await nats.connect(url)
    await {"enqueue": enqueue, "dead": dead}[command](client.jetstream(), int(number))
    await client.close()


asyncio.run(main())
