"""What leaves for a next hop: a message made fit for what that hop understands.

In one order: the header block with its edits (``mail/headers.py``), then conversion,
here, and only where the hop needs it, then dots or chunks (``smtp/data.py``,
``smtp/chunk_writer.py``). What was received is never changed, nor read twice without
need: ``demand_of`` says from the hop's extensions whether conversion is asked for at
all, ``survey`` looks through a message and writes a plan, ``encoders`` make the octets.

Pure: reading the body is left to the caller. A message that cannot be converted without
loss is told as ``Unconvertible``, never sent broken.
"""
