"""The paho client for Python, 1.6 or 2, as a program:

    pahopy.py sub URL VERSION QOS FILTER   prints "ready", then a JSON object for each message, until SIGTERM
    pahopy.py pub URL VERSION QOS TOPIC    publishes each line of standard input; ends when all are acknowledged

URL is tcp://, tls://, ws:// or wss://, VERSION 3 (MQTT 3.1), 4 (3.1.1) or 5. TLS trusts what is in the file SSL_CERT_FILE.
"""
import json
import signal
import sys
from urllib.parse import urlsplit

import paho.mqtt.client as paho

what, url, version, qos, topic = sys.argv[1:]
url = urlsplit(url)
web = url.scheme in ("ws", "wss")
options = {"protocol": int(version), "transport": "websockets" if web else "tcp"}
if hasattr(paho, "CallbackAPIVersion"):
    options["callback_api_version"] = paho.CallbackAPIVersion.VERSION1
client = paho.Client(**options)
if web:
    client.ws_set_options(path=url.path)
if url.scheme in ("tls", "wss"):
    client.tls_set()


def say(text):
    print(text, flush=True)


def on_connect(client, userdata, flags, code, properties=None):
    if code != 0:
        sys.exit(f"refused: {code}")
    if what == "sub":
        client.subscribe(topic, int(qos))


def on_subscribe(client, userdata, mid, granted, properties=None):
    got = granted[0].value if hasattr(granted[0], "value") else granted[0]
    if got != int(qos):
        sys.exit(f"granted QoS {got}")
    say("ready")


def on_message(client, userdata, m):
    say(json.dumps({"topic": m.topic, "payload": m.payload.decode(), "qos": m.qos, "retain": bool(m.retain)}))


client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect(url.hostname, url.port)
if what == "sub":
    signal.signal(signal.SIGTERM, lambda *_: client.disconnect())
    client.loop_forever()
else:
    client.loop_start()
    sent = [client.publish(topic, line.rstrip("\n"), int(qos)) for line in sys.stdin]
    for info in sent:
        info.wait_for_publish()
    client.disconnect()
    client.loop_stop()
