/* SPDX-License-Identifier: MIT */
/*
 * Runs every file given, and every file in every directory given, through a
 * fuzz target once: the corpus as a regression test, without a fuzzer.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Deeper trees than this are no corpus. */
#define DEPTH_MAX 4

static size_t replayed;

static int fail(const char *path, const char *what)
{
	fprintf(stderr, "%s: %s\n", path, what);
	return -1;
}

static int replay_file(const char *path, size_t size)
{
	uint8_t *data = malloc(size ? size : 1);
	FILE *file = fopen(path, "rb");
	int result = 0;

	if (!data || !file)
		result = fail(path, strerror(errno));
	else if (fread(data, 1, size, file) != size)
		result = fail(path, "cannot be read");
	if (!result) {
		LLVMFuzzerTestOneInput(data, size);
		replayed++;
	}
	if (file)
		fclose(file);
	free(data);
	return result;
}

static int replay(const char *path, int depth);

static int replay_directory(const char *path, int depth)
{
	struct dirent **names;
	int count = scandir(path, &names, NULL, alphasort);
	int result = 0;

	if (count < 0)
		return fail(path, strerror(errno));
	for (int i = 0; i < count; i++) {
		char inner[4096];

		if (names[i]->d_name[0] != '.') {
			int len = snprintf(inner, sizeof(inner), "%s/%s", path, names[i]->d_name);

			if (len < 0 || (size_t)len >= sizeof(inner))
				result = fail(path, "name too long");
			else if (replay(inner, depth + 1))
				result = -1;
		}
		free(names[i]);
	}
	free(names);
	return result;
}

static int replay(const char *path, int depth)
{
	struct stat status;

	if (stat(path, &status))
		return fail(path, strerror(errno));
	if (S_ISDIR(status.st_mode))
		return depth < DEPTH_MAX ? replay_directory(path, depth) : fail(path, "too deep");
	return replay_file(path, (size_t)status.st_size);
}

int main(int argc, char **argv)
{
	int result = 0;

	for (int i = 1; i < argc; i++) {
		if (replay(argv[i], 0))
			result = 1;
	}
	printf("replayed %zu inputs\n", replayed);
	if (!replayed) {
		fprintf(stderr, "no inputs: give files or directories\n");
		return 1;
	}
	return result;
}
