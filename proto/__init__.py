"""What crosses a process boundary, and nothing else: messages, records, codec, link, configuration,
client.
"""
