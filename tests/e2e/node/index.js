// Servers from a program in JavaScript: the plugin constructs them. One per region that the configuration names.
"use strict";
const pulumi = require("@pulumi/pulumi");

class Server extends pulumi.ComponentResource {
  constructor(name, args, opts) {
    const outputs = { endpoint: undefined, model: undefined, apiKeys: undefined, usdPerHour: undefined };
    super("vllm:index:Server", name, { ...args, ...outputs }, opts, true);
  }
}

class Account extends pulumi.ProviderResource {
  constructor(name, args) {
    super("vllm", name, args);
  }
}

const config = new pulumi.Config("pulumi-vllm");
const provider = new Account("account", {
  spheronApiKey: pulumi.secret(process.env.ACCOUNT_KEY),
  spheronUrl: process.env.ACCOUNT_URL,
});
const block = config.requireObject("server");
for (const [name, region] of Object.entries(config.requireObject("regions"))) {
  const server = new Server(
    name,
    {
      server: { ...block, machine: { ...block.machine, region } },
      keys: { given: pulumi.secret(`sk-of-${name}`) },
      commands: config.getObject("commands"),
    },
    { provider },
  );
  const { endpoint, model, apiKeys, usdPerHour } = server;
  exports[name] = { endpoint, model, apiKeys, usdPerHour };
}
