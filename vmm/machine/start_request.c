/* SPDX-License-Identifier: Apache-2.0 */
/* See start_request.h. */
#include "vmm/machine/start_request.h"

void start_request_init(struct start_request *request)
{
	machine_config_init(&request->config);
	request->files = (struct machine_files){0};
}

void start_request_done(struct start_request *request)
{
	machine_config_done(&request->config);
	machine_files_close(&request->files);
	request->files = (struct machine_files){0};
}
