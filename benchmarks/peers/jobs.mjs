// The official client under the same load as the others: `drive` of _harness.py, in its words.
//
//     npm install --no-package-lock --prefix benchmarks/peers
//     python benchmarks/jobs.py
import { readFileSync } from "node:fs";
import { createProdia } from "prodia/v2";

const { url, jobs, concurrency, delay_ms, token, job } = JSON.parse(process.argv.at(-1));
const prodia = createProdia({ token, baseUrl: `${url}/v2` });
const latencies = [];

async function run(count) {
	let left = count;
	const work = async () => {
		while (left > 0) {
			left -= 1;
			const began = performance.now();
			const answer = await prodia.job(job);
			await answer.uint8Array();
			latencies.push(performance.now() - began);
		}
	};
	await Promise.all(Array.from({ length: concurrency }, work));
}

await run(3 * concurrency);
latencies.length = 0;
const cpu = process.cpuUsage();
const began = performance.now();
await run(jobs);
const wall = performance.now() - began;
const used = process.cpuUsage(cpu);
latencies.sort((a, b) => a - b);
const percentile = (share) =>
	latencies[Math.min(latencies.length - 1, Math.floor(share * latencies.length))] - delay_ms;
const peak = /VmHWM:\s+(\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1] / 1024;
console.log(
	JSON.stringify({
		cpu_ms: (used.user + used.system) / 1000 / jobs,
		jobs_per_s: (jobs / wall) * 1000,
		p50_ms: percentile(0.5),
		p99_ms: percentile(0.99),
		peak_mb: peak,
	}),
);
