"""Every fault that this project promises to survive, and the tests that prove it: one table, held to the files."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]

# fault: where it is proven, file::function; all of it runs in `make test-full`, what is not slow in `make test` too
PROOFS: dict[str, list[str]] = {
    "kill -9 mid-epoch, at the last batch of an epoch, at the first of the next": [
        "fulgurite/exact_resume/test_exact_resume.py::test_the_default_run_killed_amid_an_epoch_ends_as_if_it_had_not_been",
        "fulgurite/exact_resume/test_exact_resume.py::test_users_code_with_augmentation_dropout_plateau_accumulation_and_averaged_weights_resumes_exactly",
        "fulgurite/exact_resume/test_exact_resume.py::test_without_exact_resume_the_comparison_finds_other_batches_and_other_weights",
        "fulgurite/resume/test_resume.py::test_killed_and_the_same_command_with_auto_is_one_run_without_gap_or_double",
    ],
    "kill -9 while a checkpoint is written": [
        "fulgurite/checkpoints/test_checkpoints.py::test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before",
        "fulgurite/checkpoints/test_checkpoints.py::test_between_any_two_steps_of_a_save_no_file_lies_beside_the_manifest_of_another",
    ],
    "kill -9 while a checkpoint is written, with TMPDIR on another file system": [
        "fulgurite/checkpoints/test_checkpoints.py::test_twenty_kills_at_twenty_moments_with_tmpdir_on_another_file_system",
    ],
    "SIGTERM, SIGINT, SIGUSR1": [
        "fulgurite/shutdown/test_signals.py::test_sigterm_amid_an_epoch_finishes_the_step_and_saves_it",
        "fulgurite/shutdown/test_signals.py::test_the_other_signals_do_the_same_with_their_exit_codes",
        "fulgurite/shutdown/test_signals.py::test_a_stopped_run_that_goes_on_ends_as_if_it_had_not_been",
    ],
    "a signal in a sweep": [
        "fulgurite/shutdown/test_signals.py::test_a_signal_ends_the_job_and_the_sweep",
    ],
    "a signal under DDP": [
        "fulgurite/shutdown/test_signals.py::test_ranks_stop_at_the_same_step_whichever_of_them_the_signal_reaches",
        "fulgurite/shutdown/test_signals.py::test_ranks_that_do_not_train_end_with_the_first_one",
    ],
    "disk full": [
        "fulgurite/checkpoints/test_checkpoints.py::test_a_full_disk_leaves_the_one_before_and_says_what_to_do",
        "fulgurite/checkpoints/test_checkpoints.py::test_a_run_on_a_full_disk_ends_with_one_line_and_2",
        "fulgurite/checkpoints/test_checkpoints.py::test_a_record_that_cannot_be_written_does_not_hide_how_the_run_ended",
        "fulgurite/checkpoints/test_checkpoints.py::test_little_disk_space_is_reported_before_the_run",
    ],
    "log folder not writable": [
        "fulgurite/validation/test_bad_input.py::test_a_log_folder_that_cannot_be_made",
    ],
    "checkpoint truncated": [
        "fulgurite/validation/test_bad_input.py::test_a_truncated_checkpoint",
        "fulgurite/checkpoints/test_checkpoints.py::test_a_damaged_checkpoint_is_rejected_and_the_previous_one_is_named",
    ],
    "checkpoint bit-flipped": [
        "fulgurite/resume/test_resume.py::test_a_damaged_last_checkpoint_is_passed_over_under_auto_and_refused_where_the_run_is_named",
        "fulgurite/checkpoints/test_checkpoints.py::test_a_damaged_checkpoint_is_rejected_and_the_previous_one_is_named",
    ],
    "checkpoint from another model": [
        "fulgurite/validation/test_bad_input.py::test_a_checkpoint_of_another_net",
    ],
    "checkpoint from another config": [
        "fulgurite/exact_resume/test_exact_resume.py::test_another_batch_size_amid_an_epoch_is_refused_in_one_line",
        "fulgurite/resume/test_resume.py::test_an_override_without_effect_is_rejected_and_the_run_is_unchanged",
    ],
    "data file corrupt": [
        "test_data.py::test_a_flipped_bit_in_the_sample_is_not_trained_on",
        "test_data.py::test_a_broken_sample_is_named_with_the_remedy",
        "fulgurite/data/test_idx.py::test_damaged_prepared_files_are_archived_and_replaced",
    ],
    "data file half-downloaded": [
        "fulgurite/core/test_download.py::test_a_cut_file_is_continued_where_it_stopped",
        "fulgurite/core/test_download.py::test_a_cut_file_without_a_sum_is_refused_and_never_pieced_together",
    ],
    "dataloader worker killed": [
        "fulgurite/dataloading/test_workers.py::test_a_lost_worker_is_reported_in_one_line_and_checkpoints_stay"
    ],
    "dataloader worker hung": [
        "fulgurite/dataloading/test_workers.py::test_a_lost_worker_is_reported_in_one_line_and_checkpoints_stay"
    ],
    "NaN loss": [
        "fulgurite/callbacks/test_nan_guard.py::test_a_bad_loss_stops_before_its_step_and_leaves_the_checkpoints_of_before",
        "fulgurite/callbacks/test_nan_guard.py::test_a_diverging_run_ends_with_one_line_and_3",
        "fulgurite/callbacks/test_nan_guard.py::test_a_diverging_run_of_two_processes_ends_with_3_and_hangs_nowhere",
    ],
    "out of memory": [
        "fulgurite/engine/test_oom_errors.py::test_a_device_that_is_full_is_told_with_the_batch_size_and_what_to_try",
        "fulgurite/engine/test_oom_errors.py::test_the_terminal_gets_one_line_and_the_log_the_traceback",
        "fulgurite/callbacks/test_oom_backoff.py::test_a_run_with_a_checkpoint_resumes_from_it_with_half_the_batch_size",
        "fulgurite/callbacks/test_oom_backoff.py::test_all_ranks_restart_when_any_rank_runs_out_of_memory",
    ],
    "a DDP rank killed": [
        "fulgurite/distributed/test_ddp_faults.py::test_a_killed_rank_fails_the_run_and_the_last_checkpoint_resumes_it",
        "fulgurite/exact_resume/test_exact_resume.py::test_two_processes_resume_exactly_and_share_the_batches_that_one_would_see",
        "fulgurite/distributed/test_ddp_faults.py::test_without_rank_zero_the_other_ranks_exit",
        "fulgurite/distributed/test_supervision.py::test_a_rank_zero_that_hangs_on_a_dead_rank_is_terminated_and_its_record_closed",
        "fulgurite/distributed/test_supervision.py::test_a_child_process_exits_when_its_parent_is_killed",
    ],
    "a DDP rank stopped": [
        "fulgurite/distributed/test_ddp_faults.py::test_a_stopped_rank_fails_the_run_after_the_timeout",
        "fulgurite/distributed/test_ddp_faults.py::test_without_rank_zero_the_other_ranks_exit",
    ],
    "a DDP rank raising": [
        "fulgurite/distributed/test_ddp_faults.py::test_a_rank_that_raises_fails_the_run_with_its_error_and_the_log_has_its_traceback",
        "fulgurite/distributed/test_ddp_faults.py::test_a_rank_that_exits_without_reporting_a_reason_fails_the_run",
    ],
    "port taken": [
        "fulgurite/distributed/test_ddp_faults.py::test_a_used_port_exits_with_one_line_and_code_2",
        "fulgurite/distributed/test_ddp_faults.py::test_two_concurrent_runs_do_not_interfere",
        "fulgurite/distributed/test_supervision.py::test_a_used_port_is_refused_before_a_rank_waits_for_it",
    ],
    "a sweep trial failing in each of these ways": [
        "fulgurite/sweeps/test_sweep_faults.py::test_each_kind_of_failure_is_recorded_and_the_next_job_runs",
        "fulgurite/engine/test_commands.py::test_a_failed_job_of_a_sweep_does_not_hide_the_others",
    ],
    "the sweep process killed": [
        "fulgurite/sweeps/test_sweep_faults.py::test_a_killed_sweep_keeps_the_jobs_done_and_shows_where_it_was",
        "fulgurite/sweeps/test_sweep_resume.py::test_a_sweep_killed_in_its_third_job_resumes_to_exactly_six",
    ],
    "eight runs started in the same second": [
        "fulgurite/engine/test_commands.py::test_eight_starts_in_one_second_leave_eight_directories",
    ],
    "four runs preparing the same data set, one killed": [
        "fulgurite/data/test_idx.py::test_four_processes_prepare_once_even_when_one_is_killed",
        "fulgurite/core/test_download.py::test_many_processes_download_once_even_when_one_is_killed",
    ],
    "logger refused": [
        "fulgurite/loggers/test_loggers.py::test_a_logger_that_rejects_the_connection_is_reported_once_and_loses_nothing",
    ],
    "logger hanging": [
        "fulgurite/loggers/test_loggers.py::test_a_logger_that_never_responds_costs_no_more_than_the_budget",
    ],
    "logger gone in mid-run": [
        "fulgurite/loggers/test_loggers.py::test_a_service_killed_during_a_run_does_not_change_the_run",
    ],
    "cache folder not writable": [
        "fulgurite/core/test_cache_dirs.py::test_a_run_without_a_home_or_a_cache_ends_well",
        "fulgurite/core/test_cache_dirs.py::test_unwritable_cache_folders_are_replaced_by_a_private_one",
    ],
    "every kind of config mistake": [
        "fulgurite/validation/test_bad_input.py::test_a_misspelled_word_on_the_command_line",
        "fulgurite/validation/test_bad_input.py::test_a_mistake_in_an_experiment_file_is_reported_with_its_file_and_line",
        "fulgurite/validation/test_bad_input.py::test_all_mistakes_of_one_command_are_reported_together",
        "fulgurite/validation/test_typos.py::test_a_mistyped_override_is_refused_with_the_right_name",
        "fulgurite/validation/test_typos.py::test_a_mistake_in_a_file_is_refused_with_file_line_and_the_right_name",
        "fulgurite/validation/test_validation.py::test_each_rule_has_its_message",
        "fulgurite/config/test_yaml_limits.py::test_a_file_is_refused_in_one_line_before_it_is_parsed",
    ],
    "hostile checkpoint": [
        "fulgurite/validation/test_bad_input.py::test_a_checkpoint_that_would_run_code",
        "test_layers.py::test_nothing_loads_a_checkpoint_that_could_run_code",
    ],
    "hostile config": [
        "fulgurite/config/test_yaml_limits.py::test_what_runs_a_pasted_snippet_is_not_called_whatever_the_name",
        "fulgurite/config/test_yaml_limits.py::test_hydra_makes_only_classes_of_known_packages",
        "fulgurite/config/test_yaml_limits.py::test_a_hostile_hydra_callback_is_refused_before_it_is_made",
    ],
    "alias bomb in YAML": [
        "fulgurite/config/test_yaml_limits.py::test_a_file_is_refused_in_one_line_before_it_is_parsed",
        "fulgurite/config/test_yaml_limits.py::test_the_command_refuses_it_in_one_line_at_once",
    ],
}


def functions_of(name: str) -> set[str]:
    """Return the test functions of a file, read and not imported."""
    path = TESTS / name
    body = ast.parse(path.read_text()).body if path.is_file() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("fault", PROOFS)
def test_every_fault_has_a_test_that_is_there(fault: str) -> None:
    assert PROOFS[fault], f"{fault}: no test proves it"
    missing = [
        proof for proof in PROOFS[fault] if proof.partition("::")[2] not in functions_of(proof.partition("::")[0])
    ]
    assert missing == [], f"{fault}: renamed or gone"
