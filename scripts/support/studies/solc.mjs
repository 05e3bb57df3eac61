// The project's compiler as a command that analysers know: `solc --version` and `solc --standard-json` (on standard input,
// paths from contracts/). Its own settings come with the question; nothing is downloaded.
import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const project = path.resolve(import.meta.dirname, "../../../contracts");
const solc = createRequire(path.join(project, "package.json"))("solc");

function found(file) {
  const place = [file, path.join(project, file), path.join(project, "node_modules", file)].find(existsSync);
  return place ? { contents: readFileSync(place, "utf8") } : { error: `${file} is not there` };
}

if (process.argv.includes("--version")) {
  console.log(`solc, the solidity compiler commandline interface\nVersion: ${solc.version()}`);
} else if (process.argv.includes("--standard-json")) {
  const question = JSON.parse(readFileSync(0, "utf8"));
  for (const [name, source] of Object.entries(question.sources)) {
    if (source.content === undefined) question.sources[name] = { content: found(source.urls?.[0] ?? name).contents };
  }
  process.stdout.write(solc.compile(JSON.stringify(question), { import: found }));
} else {
  console.error("solc --version | --standard-json");
  process.exitCode = 2;
}
