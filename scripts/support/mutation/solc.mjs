// The project's compiler, kept warm: one question a line on standard input, one answer a line. Run in contracts/.
//   {"ast": FILE} -> {"ast": …, "source": …}        the syntax tree with types
//   {"contract": NAME, "changed": {FILE: SOURCE}} -> {"code": HEX} or {"error": TEXT}   with the project's settings
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createInterface } from "node:readline";

const require = createRequire(path.resolve("package.json"));
const solc = require("solc");
const config = (await import(path.resolve("hardhat.config.js"))).default;
const settings = (file) => (config.solidity.overrides[file] ?? config.solidity.compilers[0]).settings;
const text = (file) => readFileSync(file.startsWith("src/") ? file : path.join("node_modules", file), "utf8");

function compile(file, asked, changed, more) {
  const found = (name) => {
    try {
      return { contents: changed[name] ?? text(name) };
    } catch (error) {
      return { error: String(error) };
    }
  };
  const input = {
    language: "Solidity",
    sources: { [file]: { content: changed[file] ?? text(file) } },
    settings: { ...more, outputSelection: asked },
  };
  return JSON.parse(solc.compile(JSON.stringify(input), { import: found }));
}

function answer(question) {
  if (question.ast) {
    const output = compile(question.ast, { "*": { "": ["ast"] } }, {}, settings(question.ast));
    return { ast: output.sources[question.ast].ast, enums: enums(output), source: text(question.ast) };
  }
  const file = `src/${question.contract}.sol`;
  const asked = { [file]: { [question.contract]: ["evm.bytecode.object"] } };
  const output = compile(file, asked, question.changed, settings(file));
  const code = output.contracts?.[file]?.[question.contract]?.evm.bytecode.object;
  const errors = output.errors?.filter((one) => one.severity === "error").map((one) => one.message);
  return code ? { code } : { error: errors?.join("; ") ?? "no code" };
}

function enums(output) {
  const found = {};
  const walk = (node) => {
    if (node === null || typeof node !== "object") return;
    if (node.nodeType === "EnumDefinition") found[node.canonicalName] = node.members.map((one) => one.name);
    Object.values(node).forEach(walk);
  };
  Object.values(output.sources).forEach((one) => walk(one.ast));
  return found;
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(answer(JSON.parse(line)))}\n`);
}
