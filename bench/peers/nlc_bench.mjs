// Prompt and decode rates of node-llama-cpp (mainline llama.cpp), as one JSON object.
// usage: node nlc_bench.mjs DIR MODEL.gguf PROMPT NEW SEQUENCES THREADS     DIR holds node_modules/node-llama-cpp
import {createRequire} from "node:module";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [dir, modelPath, ...numbers] = process.argv.slice(2);
const [promptLength, newTokens, nSequences, threads] = numbers.map(Number);
const require = createRequire(path.resolve(dir, "package.json"));
const {getLlama} = await import(pathToFileURL(require.resolve("node-llama-cpp")).href);

const llama = await getLlama({gpu: false, build: "never", maxThreads: threads, logLevel: "error"});
const model = await llama.loadModel({modelPath, useMmap: true});
const context = await model.createContext({contextSize: promptLength + newTokens + 8, sequences: nSequences, batchSize: 512 * nSequences,
                                           threads, flashAttention: true});
const sequences = Array.from({length: nSequences}, () => context.getSequence());
let seed = 1;
const prompt = () => Array.from({length: promptLength}, () => (seed = (seed * 48271) % 2147483647) % 10000);

async function generate(sequence, first) {
    let n = 0;
    for await (const _ of sequence.evaluate([first], {temperature: 0, yieldEogToken: true}))
        if (++n >= newTokens)
            break;
    return n;
}

async function once() {
    await Promise.all(sequences.map((s) => s.clearHistory()));
    const t0 = performance.now();
    if (promptLength > 0)
        await Promise.all(sequences.map((s) => s.evaluateWithoutGeneratingNewTokens(prompt())));
    const t1 = performance.now();
    const counts = newTokens > 0 ? await Promise.all(sequences.map((s) => generate(s, 17))) : [0];
    const t2 = performance.now();
    return {prefill_tok_s: 1e3 * promptLength * nSequences / (t1 - t0), decode_tok_s: 1e3 * counts.reduce((a, b) => a + b) / (t2 - t1)};
}

await once();    // warms up
console.log(JSON.stringify(await once()));
process.exit(0);
