// MQTT.js as a program:
//
//   node mqttjs.mjs sub URL VERSION QOS FILTER   prints "ready", then a JSON object for each message, until SIGTERM
//   node mqttjs.mjs pub URL VERSION QOS TOPIC    publishes each line of standard input; ends when all are acknowledged
//
// URL is tcp://, tls://, ws:// or wss://, with USER:PASSWORD@ where that is wanted; VERSION 3 (MQTT 3.1), 4 (3.1.1) or 5. Where the broker
// refuses something it prints "refused" and the code.
import mqtt from "mqtt";
import { createInterface } from "node:readline";

const [what, url, version, qos, topic] = process.argv.slice(2);
const refused = (err) => {
  console.log(`refused ${err.code ?? err.packet?.granted[0]}`);
  console.error(err);
  process.exit(1);
};
const client = await mqtt
  .connectAsync(url, {
    protocolVersion: Number(version),
    protocolId: version === "3" ? "MQIsdp" : "MQTT",
    reconnectPeriod: 0,
  })
  .catch(refused);
client.on("error", (err) => {
  console.error(err);
  process.exit(1);
});

if (what === "pub") {
  const lines = createInterface({ input: process.stdin });
  const sent = [];
  for await (const line of lines) {
    sent.push(client.publishAsync(topic, line, { qos: Number(qos) }));
  }
  await Promise.all(sent).catch(refused);
  await client.endAsync();
} else {
  client.on("message", (topic, payload, { qos, retain }) => {
    console.log(JSON.stringify({ topic, payload: payload.toString(), qos, retain }));
  });
  const [granted] = await client.subscribeAsync(topic, { qos: Number(qos) }).catch(refused);
  if (granted.qos !== Number(qos)) {
    throw new Error(`granted QoS ${granted.qos}`);
  }
  console.log("ready");
  process.on("SIGTERM", async () => {
    await client.endAsync();
    process.exit(0);
  });
}
