// Reads [{name, source}] from standard input and prints the creation code of each contract src/NAME.sol with that
// source in place of its own, as JSON; compiler and settings are the project's. Run in contracts/.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const require = createRequire(path.resolve("package.json"));
const solc = require("solc");
const config = (await import(path.resolve("hardhat.config.js"))).default;
const settings = (file) => (config.solidity.overrides[file] ?? config.solidity.compilers[0]).settings;

const found = (file) => {
  try {
    return { contents: readFileSync(file.startsWith("src/") ? file : path.join("node_modules", file), "utf8") };
  } catch (error) {
    return { error: String(error) };
  }
};

const codes = JSON.parse(readFileSync(0, "utf8")).map(({ name, source }) => {
  const file = `src/${name}.sol`;
  const input = {
    language: "Solidity",
    sources: { [file]: { content: source } },
    settings: { ...settings(file), outputSelection: { [file]: { [name]: ["evm.bytecode.object"] } } },
  };
  const output = JSON.parse(solc.compile(JSON.stringify(input), { import: found }));
  const made = output.contracts?.[file]?.[name]?.evm.bytecode.object;
  if (!made) throw new Error(`${name}: ${JSON.stringify(output.errors?.filter((one) => one.severity === "error"))}`);
  return made;
});
process.stdout.write(JSON.stringify(codes));
