/* SPDX-License-Identifier: MIT */
/*
 * DPDK's virtio-user driver on one core, with the jobs of jobs.h:
 *
 *   dpdk_frontend --socket PATH --job tx|rx|rtt [--server] [--no-huge] [--ring-size 256] [--turns] …
 *
 * --server: it listens and the back-end connects, as OVS wants it.
 * --no-in-order: it does not take IN_ORDER, whoever offers it.
 */
#define _GNU_SOURCE
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <sched.h>

#include "jobs.h"

#define PORT 0
#define POOL 2047u

static struct rte_mempool *pool;

static uint32_t dpdk_send(void *self, const uint8_t *frame, uint32_t bytes, uint32_t n)
{
	struct rte_mbuf *mbufs[JOB_BATCH];
	uint16_t sent;

	(void)self;
	n = n < JOB_BATCH ? n : JOB_BATCH;
	if (rte_pktmbuf_alloc_bulk(pool, mbufs, n) != 0)
		n = 0; /* all are in the ring: the burst takes back those that were sent */
	for (uint32_t i = 0; i < n; i++) {
		memcpy(rte_pktmbuf_mtod(mbufs[i], void *), frame, bytes);
		mbufs[i]->data_len = (uint16_t)bytes;
		mbufs[i]->pkt_len = bytes;
	}
	sent = rte_eth_tx_burst(PORT, 0, mbufs, (uint16_t)n);
	if (sent < n)
		rte_pktmbuf_free_bulk(mbufs + sent, n - sent);
	return sent;
}

static uint32_t dpdk_drain(void *self, uint8_t *last)
{
	struct rte_mbuf *mbufs[JOB_BATCH];
	uint16_t n = rte_eth_rx_burst(PORT, 0, mbufs, JOB_BATCH);

	(void)self;
	if (last && n && mbufs[n - 1]->data_len >= LAST_BYTES)
		memcpy(last, rte_pktmbuf_mtod(mbufs[n - 1], void *), LAST_BYTES);
	if (n)
		rte_pktmbuf_free_bulk(mbufs, n);
	return n;
}

static void start(uint16_t ring_size)
{
	struct rte_eth_conf conf = { 0 };
	struct rte_eth_txconf tx;
	struct rte_eth_dev_info info;

	pool = rte_pktmbuf_pool_create("frames", POOL, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, 0);
	if (!pool)
		die("DPDK: no memory for frames; more huge pages, or --no-huge");
	if (rte_eth_dev_info_get(PORT, &info) < 0)
		die("DPDK: no port; is the back-end there?");
	tx = info.default_txconf;
	if (rte_eth_dev_configure(PORT, 1, 1, &conf) < 0 ||
	    rte_eth_rx_queue_setup(PORT, 0, ring_size, 0, NULL, pool) < 0 ||
	    rte_eth_tx_queue_setup(PORT, 0, ring_size, 0, &tx) < 0 || rte_eth_dev_start(PORT) < 0)
		die("DPDK: the port does not start");
}

static void wait_for_link(void)
{
	struct rte_eth_link link = { 0 };

	for (int tries = 0; tries < 1000; tries++) {
		if (rte_eth_link_get_nowait(PORT, &link) == 0 && link.link_status)
			return;
		usleep(10000);
	}
	die("DPDK: the link stays down; did the back-end connect?");
}

int main(int argc, char **argv)
{
	const char *path = option(argc, argv, "--socket", NULL);
	const char *ring_size = option(argc, argv, "--ring-size", "256");
	bool server = flag(argc, argv, "--server");
	struct nic nic = { NULL, dpdk_send, dpdk_drain, NULL };
	char vdev[256], lcores[32], prefix[32];
	struct job job;
	/* Log level 4, warnings: standard output is for the answer. */
	char *eal[16] = { argv[0],
			  "--no-pci",
			  "--no-telemetry",
			  "--log-level=4",
			  "--lcores",
			  lcores,
			  "--file-prefix",
			  prefix,
			  "--vdev",
			  vdev,
			  "-m",
			  "128" };
	int n = 12;

	job_options(&job, argc, argv);
	if (!path)
		die("dpdk_frontend --socket PATH --job tx|rx|rtt [--server] [--no-huge]");
	snprintf(vdev, sizeof(vdev), "net_virtio_user0,path=%s,queues=1,queue_size=%s%s%s", path,
		 ring_size, server ? ",server=1" : "",
		 flag(argc, argv, "--no-in-order") ? ",in_order=0" : "");
	snprintf(lcores, sizeof(lcores), "0@%d", sched_getcpu());
	snprintf(prefix, sizeof(prefix), "bench-%d", getpid());
	if (flag(argc, argv, "--no-huge")) {
		eal[n++] = "--no-huge";
		eal[n++] = "--no-shconf";
	} else {
		eal[n++] = "--in-memory";
		eal[n++] = "--single-file-segments";
	}
	if (rte_eal_init(n, eal) < 0)
		die("DPDK does not start; it needs root and 128 MiB of huge pages, or --no-huge");
	start((uint16_t)option_number(argc, argv, "--ring-size", "256"));
	wait_for_link();
	job_run(&job, &nic);
	rte_eth_dev_stop(PORT);
	rte_eal_cleanup();
	return 0;
}
