/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the place of the C library's calls on files (file_faults.c has the list): one of them fails. Calls that remove
 * something are not among them, since what cannot be removed stays.
 *
 *	for (unsigned int n = 1; faults_begin(n, EIO), code = work(&err), faults_end(); n++)
 *		... code and err are those of a run in which call n failed
 */
#pragma once

#include <stdbool.h>

/* In the place of an error: the process is killed at that call. */
#define FAULTS_KILL (-1)

/* From now on call n (from 1) fails with error; ENOSPC fails in calls that need space alone, EINTR in those that wait. */
void faults_begin(unsigned int n, int error);
/* No call fails any more. Whether one has: its name is in faults_call. */
bool faults_end(void);
extern const char *faults_call;

/* How many descriptors are open. */
unsigned int faults_open_files(void);
