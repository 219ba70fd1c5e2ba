// OpenAI's library for JavaScript: prints its version, and what it gets for each feature.
import OpenAI from "openai";
import { readFileSync } from "node:fs";

const { LLM_URL, LLM_KEY, LLM_MODEL: model, LLM_IMAGE } = process.env;
const ai = new OpenAI({ baseURL: LLM_URL, apiKey: LLM_KEY, maxRetries: 0 });
const question = [{ role: "user", content: "Say something about the weather." }];
// A tiny model that may write a text of any length never ends it.
const name = { type: "string", enum: ["Oslo", "Rome"] };
const city = { type: "object", properties: { city: name }, required: ["city"], additionalProperties: false };
const asking = (url) => [{ role: "user", content: [{ type: "text", text: "What is this?" }, { type: "image_url", image_url: { url } }] }];

const message = async (more = {}) =>
  (await ai.chat.completions.create({ model, messages: question, ...more })).choices[0].message;
const said = async (more) => (await message(more)).content;

async function stream() {
  let text = "", tokens = 0;
  const options = { stream: true, stream_options: { include_usage: true } };
  for await (const chunk of await ai.chat.completions.create({ model, messages: question, ...options })) {
    text += chunk.choices[0]?.delta.content ?? "";
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  if (tokens < 2) throw new Error(`usage of ${tokens} tokens`);
  return text;
}

async function responseStream() {
  let text = "";
  for await (const event of await ai.responses.create({ model, input: "Hello", stream: true }))
    if (event.type === "response.output_text.delta") text += event.delta;
  return text;
}

async function models() {
  const names = [];
  for await (const one of ai.models.list()) names.push(one.id);
  return (await ai.models.retrieve(names.at(-1))).id;
}

async function refused(promise) {
  let answer;
  try {
    answer = await promise;
  } catch (error) {
    if (error instanceof OpenAI.BadRequestError || error instanceof OpenAI.AuthenticationError) return error.error.message;
    throw error;
  }
  throw new Error(`answered: ${JSON.stringify(answer)}`);
}

const schema = { type: "json_schema", json_schema: { name: "w", schema: city, strict: true } };
const tools = [{ type: "function", function: { name: "get_weather", parameters: city } }];
const features = {
  chat: () => said(),
  "streaming, with usage": stream,
  "a message of role developer": () => said({ messages: [{ role: "developer", content: "Be short." }, ...question] }),
  "reasoning, effort medium": async () => (await message({ reasoning_effort: "medium" })).reasoning,
  "no reasoning, effort low": async () => String((await message({ reasoning_effort: "low" })).reasoning === null),
  "tool call": async () => (await message({ tools })).tool_calls[0].function.name,
  "empty list of tools": () => said({ tools: [] }),
  "structured output": async () => JSON.parse(await said({ response_format: schema })).city,
  "image inside the request": () => said({ messages: asking(LLM_IMAGE) }),
  max_completion_tokens: () => said({ max_completion_tokens: 3 }),
  "models, and one model": models,
  "Responses API": async () => (await ai.responses.create({ model, input: "Hello" })).output_text,
  "Responses API, streaming": responseStream,
  "stored responses": () => refused(ai.responses.create({ model, input: "Hello", previous_response_id: "resp_1" })),
  "image at an address": () => refused(message({ messages: asking("http://127.0.0.1/x.png") })),
  "10,000 choices": () => refused(message({ n: 10_000 })),
  "a wrong key": () => refused(ai.withOptions({ apiKey: "sk-no" }).models.list()),
};

const found = {};
for (const [name, ask] of Object.entries(features)) found[name] = String(await ask());
const { version } = JSON.parse(readFileSync(new URL("node_modules/openai/package.json", import.meta.url)));
process.stdout.write(JSON.stringify({ version, found }));
