/* SPDX-License-Identifier: Apache-2.0 */
/* See start_request.h. */
#include "vmm/machine/start_request.h"

void start_request_init(struct start_request *request)
{
	machine_config_init(&request->config);
	request->files = (struct machine_files){0};
	request->snapshot = (struct start_snapshot){0};
}

void start_snapshot_done(struct start_snapshot *snapshot)
{
	while (snapshot->net_count)
		free(snapshot->nets[--snapshot->net_count]);
	free(snapshot->state);
	free(snapshot->memory);
	free(snapshot->mode);
	free(snapshot->name);
	free(snapshot->serial);
	free(snapshot->vsock);
	free(snapshot->clock);
	*snapshot = (struct start_snapshot){0};
}

void start_request_done(struct start_request *request)
{
	machine_config_done(&request->config);
	start_snapshot_done(&request->snapshot);
	machine_files_close(&request->files);
	request->files = (struct machine_files){0};
}
