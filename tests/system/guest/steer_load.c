/* SPDX-License-Identifier: MIT */
/*
 * Load a steering program and run it over frames, on the guest's kernel.
 *
 *   steer_load FOLDER INSTRUCTION
 *
 * FOLDER has the files program (instructions, of which number INSTRUCTION takes the map),
 * map (its value) and frames (each behind its length, 16 bits).  Prints the verifier's last
 * line, then the queue of each frame; or what failed.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ETHERNET 14
#define FRAME_MAX 4096

static char verdict[1 << 16];

static void fail(const char *what)
{
	printf("%s: %s\n%s\n", what, strerror(errno), verdict);
	exit(1);
}

static int bpf(int command, union bpf_attr *attributes)
{
	return (int)syscall(__NR_bpf, command, attributes, sizeof(*attributes));
}

static void *read_all(const char *name, size_t *size)
{
	FILE *file = fopen(name, "rb");
	char *data;

	if (!file || fseek(file, 0, SEEK_END) != 0)
		fail(name);
	*size = (size_t)ftell(file);
	rewind(file);
	data = malloc(*size + 1);
	if (!data || fread(data, 1, *size, file) != *size)
		fail(name);
	fclose(file);
	return data;
}

static int make_map(void)
{
	union bpf_attr create = { .map_type = BPF_MAP_TYPE_ARRAY };
	union bpf_attr update = { .flags = BPF_ANY };
	uint32_t key = 0;
	size_t size;
	void *value = read_all("map", &size);

	create.key_size = sizeof(key);
	create.value_size = (uint32_t)size;
	create.max_entries = 1;
	create.map_flags = BPF_F_MMAPABLE;
	update.map_fd = (uint32_t)bpf(BPF_MAP_CREATE, &create);
	update.key = (uintptr_t)&key;
	update.value = (uintptr_t)value;
	if ((int)update.map_fd < 0 || bpf(BPF_MAP_UPDATE_ELEM, &update))
		fail("map");
	free(value);
	return (int)update.map_fd;
}

static uint32_t load(int map, size_t takes_map)
{
	union bpf_attr attributes = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER };
	size_t size;
	struct bpf_insn *code = read_all("program", &size);
	int program;

	code[takes_map].src_reg = BPF_PSEUDO_MAP_FD;
	code[takes_map].imm = map;
	attributes.insns = (uintptr_t)code;
	attributes.insn_cnt = (uint32_t)(size / sizeof(*code));
	attributes.license = (uintptr_t)"Dual MIT/GPL";
	attributes.log_level = 4; /* how much was followed */
	attributes.log_buf = (uintptr_t)verdict;
	attributes.log_size = sizeof(verdict);
	program = bpf(BPF_PROG_LOAD, &attributes);
	if (program < 0)
		fail("program");
	free(code);
	return (uint32_t)program;
}

/* The kernel takes an Ethernet header off what a socket filter is tried on. */
static uint32_t queue_of(uint32_t program, const uint8_t *frame, uint16_t size)
{
	union bpf_attr attributes = { .test = { .prog_fd = program } };
	uint8_t data[ETHERNET + FRAME_MAX] = { 0 };

	memcpy(data + ETHERNET, frame, size);
	attributes.test.data_in = (uintptr_t)data;
	attributes.test.data_size_in = ETHERNET + (uint32_t)size;
	if (bpf(BPF_PROG_TEST_RUN, &attributes))
		fail("frame");
	return attributes.test.retval;
}

int main(int argc, char **argv)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	const uint8_t *frames;
	const char *line;
	uint32_t program;
	size_t size;

	/* Maps were charged to it before Linux 5.11. */
	if (argc != 3 || chdir(argv[1]) || setrlimit(RLIMIT_MEMLOCK, &unlimited))
		fail("steer_load");
	program = load(make_map(), strtoul(argv[2], NULL, 10));
	line = strstr(verdict, "processed");
	printf("%.*s\n", line ? (int)strcspn(line, "\n") : 0, line);
	frames = read_all("frames", &size);
	for (size_t at = 0; at + 2 < size;) {
		const uint16_t length = (uint16_t)(frames[at] | frames[at + 1] << 8);

		printf("%u\n", queue_of(program, frames + at + 2, length));
		at += 2u + length;
	}
	return 0;
}
