;;; region-policies.scm --- what each region takes in, and what it demands.
;;;
;;; Asked:    once, when the tree is loaded.
;;; Returns:  nothing; it declares. A region without a policy here holds nothing;
;;;           a policy of a region that the tree lacks waits until it is added.
;;; On error: the tree is refused and the last version that loaded stays.

(require "repomind/prelude.scm")
(require "repomind/regions.scm")
(require "repomind/verdicts.scm")
(require "repomind/testing.scm")
(provide policy-api)

(define policy-api 1)

(define about-nobody '(public operational source-code credentials))
(define about-people '(personal financial geolocation children))
(define special '(sensitive health biometric genomic))
(define everything (append about-nobody about-people special))

;; Id, country whose law governs it, classes accepted, duties. Small regions have no
;; staff cleared for special categories and do not take them in.
(define policies
  (list (list 'us-east "US" everything '())
        (list 'us-west "US" everything '())
        (list 'eu-west "IE" everything '(encrypt-at-rest))
        (list 'eu-central "DE" everything '(encrypt-at-rest))
        (list 'ap-southeast "SG" everything '())
        (list 'ap-northeast "JP" everything '())
        (list 'eu-north "SE" everything '(encrypt-at-rest))
        (list 'af-south "ZA" (append about-nobody about-people) '())
        (list 'ap-east "HK" (append about-nobody about-people) '())
        (list 'il-central "IL" (append about-nobody about-people) '())
        (list 'ap-south "IN" (append about-nobody about-people) '())
        (list 'sa-east "BR" (append about-nobody about-people) '())))

(define (declare! policy)
  (define-region-policy (car policy)
    (list (cons 'jurisdiction (cadr policy))
          (cons 'accepts (caddr policy))
          (cons 'requires (cadddr policy)))))

(define (in-tree? policy) (member (car policy) (region-ids (all-regions))))
(for-each declare! (filter in-tree? policies))

(define (agrees? region)
  (define policy (assoc (region-id region) policies))
  (or (not policy) (equal? (cadr policy) (region-jurisdiction region))))

(test-module "region-policies"
  (check-equal? "each region of the tree has the jurisdiction that its file gives it"
                (region-ids (filter (lambda (region) (not (agrees? region))) (all-regions))) '())
  (check-true "every region takes in what is about nobody"
              (every (lambda (policy) (every (lambda (class) (member class (caddr policy))) about-nobody)) policies))
  (check-equal? "no region has two policies" (length (unique (map car policies))) (length policies)))
