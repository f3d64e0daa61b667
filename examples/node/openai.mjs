// The official Node client: npm install openai && node examples/node/openai.mjs [URL]
import fs from "node:fs";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2] ?? "http://localhost:8000/v1", apiKey: "unused" });
const drawn = await client.images.generate({ model: "emoji", prompt: "red apple on a blue background", n: 2 });
fs.writeFileSync("apple.png", Buffer.from(drawn.data[0].b64_json, "base64"));
const stream = await client.images.generate({ model: "emoji", prompt: "red apple", stream: true, partial_images: 2 });
for await (const event of stream) {
  console.log(event.type);
}
